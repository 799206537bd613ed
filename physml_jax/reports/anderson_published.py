"""What is published about learning the disorder of Anderson states.

Sources:
  The study reviewed in the paper: ResNet18 on pictures of 100 x 100 pixels, 17 disorders, L = 20, 40 and 100. Of its
  scores only those of an early training at L = 20 are known to us.
  A. Rodriguez, L. J. Vasquez, K. Slevin and R. A. Roemer, Phys. Rev. B 84, 134209 (2011): W_c.
"""

#: Critical disorder at E = 0, and its 95 % interval.
CRITICAL_WIDTH = 16.530
CRITICAL_INTERVAL = (16.524, 16.536)
#: An early training of the authors.
SIZE, NUM_CLASSES, PIXELS = 20, 17, 100
ACCURACY, LOSS = 0.147, 2.47
