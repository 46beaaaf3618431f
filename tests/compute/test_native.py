"""What a CPU computes itself, by the words of /proc/cpuinfo on several kinds of CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.compute.native import emulation_words, native_units

X86 = "processor\t: 0\nmodel name\t: a CPU\nflags\t\t: fpu sse2 {}\nbugs\t: amx_fp16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format("avx2"), {}),
        (X86.format("avx512f avx512_bf16"), {"bf16": "avx512_bf16"}),
        (X86.format("avx512_bf16 amx_bf16 amx_tile"), {"bf16": "amx_bf16"}),
        (X86.format("avx512_fp16 amx_bf16"), {"bf16": "amx_bf16", "fp16": "avx512_fp16"}),
        (ARM.format("asimdhp bf16"), {"bf16": "bf16", "fp16": "asimdhp"}),
        (ARM.format("crc32"), {}),
        ("processor: 0\n", None),
    ],
)
def test_what_a_cpu_computes_itself(tmp_path: Path, text: str, expected: dict[str, str] | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert native_units(tmp_path / "cpuinfo") == expected


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert native_units(tmp_path / "absent") is None
    assert emulation_words("bf16", None) == ""


def test_what_is_emulated() -> None:
    said = [emulation_words(one, {"bf16": "amx_bf16"}) for one in ("fp32", "bf16", "fp16")]
    assert said == ["", "", "precision = fp16 is emulated on this CPU, and slower than fp32"]
