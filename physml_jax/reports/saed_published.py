"""What was published about phases in electron diffraction patterns, for tables and figures.

N. Tomczak, S. Kuppannagari, Automated indexing of TEM diffraction patterns using machine learning, IEEE HPEC 2023,
tables I and III. Balanced accuracy and macro F1 are not in the paper: they were computed from the answers that its
authors released.
"""

from typing import NamedTuple

#: Names of the nine classes.
NAMES = ("α-Zr", "β-Pu", "δ-(Pu,Zr)", "κ-PuZr₂", "PuO", "PuO₂", "Zr₃O R32", "Zr₃O R-3c", "ZrO₂")
#: Images of every class, table I.
TRAINING = (235, 36, 194, 17, 19, 25, 4, 34, 26)
TEST = (61, 6, 47, 7, 4, 10, 2, 8, 3)
#: Classes that share a lattice: what else they have in common.
GROUPS = {
    (0, 6, 7): "one hexagonal metal lattice; several zones are the same pattern",
    (2, 4, 5): "one face-centred cubic geometry; they differ by scale",
}


class Published(NamedTuple):
    """A row of table III: ten trainings. Accuracies are shares.

    Attributes:
      title: of the model.
      frozen: only the head was trained.
      parameters: as printed, in millions.
      best: accuracy of the best training.
      mean: mean accuracy.
      best_f1: weighted F1 of the best.
      mean_f1: mean of it.
    """

    title: str
    frozen: bool
    parameters: float
    best: float
    mean: float
    best_f1: float
    mean_f1: float


#: (module of the model, frozen) -> row.
TABLE = {
    ("saed_cnn", False): Published("299-AN", False, 0.265, 0.7703, 0.7162, 0.751, 0.686),
    ("efficientnet", False): Published("EfficientNet-B3", False, 10.7, 0.7568, 0.7182, 0.71, 0.686),
    ("efficientnet", True): Published("EfficientNet-B3", True, 10.7, 0.3176, 0.2811, 0.281, 0.261),
    ("vgg", False): Published("VGG16", False, 1300.0, 0.7297, 0.4439, 0.708, 0.287),
    ("vgg", True): Published("VGG16", True, 1300.0, 0.4392, 0.4304, 0.285, 0.274),
    ("resnet", False): Published("ResNet-50", False, 23.5, 0.75, 0.6885, 0.745, 0.678),
    ("resnet", True): Published("ResNet-50", True, 23.5, 0.6419, 0.6101, 0.622, 0.57),
    ("vit", False): Published("ViT-L16", False, 302.0, 0.4595, 0.4493, 0.388, 0.374),
    ("vit", True): Published("ViT-L16", True, 302.0, 0.7297, 0.698, 0.676, 0.633),
}
#: Of 299-AN, means over its ten trainings, from the released answers.
BALANCED_299AN, MACRO_F1_299AN = 0.440, 0.458
#: Always the most frequent class.
MAJORITY = 61 / 148
