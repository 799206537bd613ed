"""From a config to a trained state: ``setup`` resolves names, ``loop`` runs, ``sharding`` starts processes and lays
arrays on devices.
"""
