"""Convert a Keras model to an int8 .tflite and the C++ sources around it: a door to `tfmcu-prune convert`.

python tools/convert.py gated.keras --calibration samples.npz --output firmware
python tools/convert.py --help
"""

from __future__ import annotations

import sys

from tfmcu_prune.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
