"""Reduce the linker sections measured for each operator to the table that the package ships.

Sections that the same operators keep count as one group; the code of a model is the base plus every group that one
of its operators keeps.

    python tools/code_table.py --shared ../shared --out tfmcu_prune/tflm/data/code_cortex-m4.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tfmcu_prune.tflm.kernels import KERNELS

_FILES = {"reference": "tflm_flash_sections_m4_ref.json", "cmsis-nn": "tflm_flash_sections_m4_cmsis.json"}
_SOURCE = (
    "tensorflow/tflite-micro 90b983c2 + CMSIS-NN 4ab83cc3, arm-none-eabi-gcc 12.2.1 -Os, Cortex-M4F, release; linker "
    "sections kept per operator (--gc-sections -Map)"
)


def reduce(sections: dict, names: dict[str, str]) -> dict:
    """Return the base size and the groups [bytes, operators as bits of a hex number] of one build."""
    operators = sorted(names[key] for key in sections["ops"] if key in names)
    keepers: dict[int, int] = {}
    for key, ids in sections["ops"].items():
        for number in ids:
            bit = 1 << operators.index(names[key]) if key in names else 0
            keepers[number] = keepers.get(number, 0) | bit
    groups: dict[int, int] = {}
    for number, mask in keepers.items():
        if mask:
            groups[mask] = groups.get(mask, 0) + sections["sizes"][number]
    return {
        "base": sections["base_flash"],
        "operators": operators,
        "groups": [[size, f"{mask:x}"] for mask, size in sorted(groups.items())],
    }


def with_int8(sections: dict, int8: dict) -> dict:
    """Return the sections with the operators that have an int8 registration replaced by that."""
    result = {**sections, "sizes": list(sections["sizes"]), "ops": dict(sections["ops"])}
    for key, kept in int8["operators"].items():
        result["sizes"].append(kept["new"])
        result["ops"][key] = [*kept["keep"], len(result["sizes"]) - 1]
    return result


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("tfmcu_prune/tflm/data/code_cortex-m4.json"))
    args = parser.parse_args()
    names = {name.replace("_", "").lower(): name for name in KERNELS}
    table: dict = {"source": _SOURCE}
    builds = {kernels: json.loads((args.shared / file).read_text()) for kernels, file in _FILES.items()}
    int8 = json.loads((Path(__file__).parent / "code_int8_sections.json").read_text())
    builds["cmsis-nn-int8"] = with_int8(builds["cmsis-nn"], int8)
    for kernels, sections in builds.items():
        known = {key: names[key.lower()] for key in sections["ops"] if key.lower() in names}
        table[kernels] = reduce(sections, known)
        print(
            kernels,
            len(table[kernels]["groups"]),
            "groups; not registered by name:",
            sorted(set(sections["ops"]) - set(known)),
        )
    args.out.write_text(json.dumps(table, separators=(",", ":")) + "\n")
    print(args.out, args.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
