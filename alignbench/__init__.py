"""alignbench: which alignment algorithm is better under the same conditions, and how sure are we?"""

__version__ = "0.1.0"
