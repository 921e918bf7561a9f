"""lrwd-sweep: can the learning rate and the weight decay be tuned one at a time?"""

__version__ = "0.1.0"
