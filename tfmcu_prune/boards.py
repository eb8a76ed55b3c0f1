"""Boards and chips with the memory that their makers state. Data, and how to look it up."""

from __future__ import annotations

from dataclasses import dataclass

from tfmcu_prune.errors import BudgetError

_KIB = 1024
_MHZ = 1_000_000


@dataclass(frozen=True)
class Board:
    """A board or chip.

    Args:
        name: What the caller writes, lower case without blanks.
        title: What a person reads.
        core: The target of `footprint`.
        sram: Bytes of RAM that one array can take, all of it free.
        flash: Bytes of flash for program and model.
        clock_hz: Highest clock of the core.
        source: The maker's document.
    """

    name: str
    title: str
    core: str
    sram: int
    flash: int
    clock_hz: int
    source: str


# name, title, core, SRAM KiB, flash KiB, MHz, source. Of several RAM banks the largest contiguous one counts.
_ROWS = (
    ("nano33ble", "Arduino Nano 33 BLE", "cortex-m4", 256, 1024, 64, "Arduino ABX00030; nRF52840 PS v1.7"),
    ("nrf52840", "Nordic nRF52840", "cortex-m4", 256, 1024, 64, "nRF52840 PS v1.7, section 1"),
    ("nrf5340", "Nordic nRF5340 (application core)", "cortex-m33", 512, 1024, 128, "nRF5340 PS v1.3, section 1"),
    ("pico", "Raspberry Pi Pico (RP2040)", "cortex-m0+", 264, 2048, 133, "RP2040 datasheet 2.6; Pico datasheet"),
    ("pico2", "Raspberry Pi Pico 2 (RP2350)", "cortex-m33", 520, 4096, 150, "RP2350 datasheet 1.1; Pico 2 datasheet"),
    ("stm32f446", "ST STM32F446RE (Nucleo)", "cortex-m4", 128, 512, 180, "ST DS10693"),
    ("stm32f746", "ST STM32F746NG (Discovery)", "cortex-m7", 320, 1024, 216, "ST DS10916: DTCM + SRAM1 + SRAM2"),
    ("stm32h743", "ST STM32H743ZI (Nucleo)", "cortex-m7", 512, 2048, 480, "ST DS12110: AXI SRAM, of 1 MiB in all"),
    ("stm32l4r5", "ST STM32L4R5ZI (Nucleo)", "cortex-m4", 640, 2048, 120, "ST DS12023: SRAM1 + SRAM2 + SRAM3"),
    ("stm32u575", "ST STM32U575ZI (Nucleo)", "cortex-m33", 768, 2048, 160, "ST DS13737: SRAM1 + SRAM2 + SRAM3"),
    ("stm32u5a5", "ST STM32U5A5ZJ (Nucleo)", "cortex-m33", 2496, 4096, 160, "ST DS13633: SRAM1, 2, 3 and 5"),
    ("esp32", "Espressif ESP32-WROOM-32E", "esp32", 320, 4096, 240, "ESP32 datasheet: DRAM, of 520 KiB"),
    ("esp32-s3", "Espressif ESP32-S3-WROOM-1", "esp32", 512, 8192, 240, "ESP32-S3 datasheet 1.x: internal SRAM"),
    ("apollo4", "Ambiq Apollo4 Blue Plus", "cortex-m4", 1024, 2048, 192, "Ambiq datasheet: SSRAM; MRAM"),
    ("ra6m5", "Renesas RA6M5 (EK-RA6M5)", "cortex-m33", 512, 2048, 200, "Renesas R01DS0366"),
    ("samd51", "Microchip SAMD51 (Metro M4)", "cortex-m4", 192, 512, 120, "Microchip DS60001507: SAMD51J19"),
    ("corstone300", "Arm Corstone-300 (MPS3 AN547)", "cortex-m55", 2048, 2048, 32, "Arm DAI0547: one bank of ISRAM"),
)  # fmt: skip

BOARDS: tuple[Board, ...] = tuple(
    Board(name, title, core, sram * _KIB, flash * _KIB, clock * _MHZ, source)
    for name, title, core, sram, flash, clock, source in _ROWS
)


def find(name: str) -> Board:
    """Return a board by its name; case, blanks, dashes and underscores do not matter.

    Args:
        name: Such as "nano33ble" or "STM32 F446".

    Returns:
        The `Board`.

    Raises:
        ValueError: There is no such board; the message lists them.

    Example:
        >>> find("Nano 33 BLE").sram
        262144
    """
    wanted = _plain(name)
    for board in BOARDS:
        if wanted == _plain(board.name):
            return board
    raise ValueError(f"A board must be one of {', '.join(board.name for board in BOARDS)}. Received: {name!r}")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def free(board: Board, reserve_sram: int = 0, reserve_flash: int = 0) -> tuple[int, int]:
    """Return the SRAM and flash that a reserve leaves on a board, bytes.

    Args:
        board: The board.
        reserve_sram: Bytes of SRAM for stack, heap, buffers and radio.
        reserve_flash: Bytes of flash for the rest of the program, TFLM's code included.

    Raises:
        BudgetError: The reserve takes all there is.
    """
    left = board.sram - reserve_sram, board.flash - reserve_flash
    for kind, value, total, reserve in zip(
        ("SRAM", "flash"), left, (board.sram, board.flash), (reserve_sram, reserve_flash), strict=True
    ):
        if reserve < 0 or value <= 0:
            raise BudgetError(
                f"The reserve of {kind} must be from 0 to below the {total:,} bytes of {board.title}. "
                f"Received: {reserve:,}"
            )
    return left
