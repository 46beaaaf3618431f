"""Published rows: what a device's name says, what is derived, what is left out, and what is no such file."""

from __future__ import annotations

import csv

import pytest

from ssd.errors import DataError
from ssd.plan.rows import OTHERS, PUBLISHED, Device, Row, describe_device, read_rows

HEAD = "round,submitter,system,accelerator,nodes,accelerators,global_batch,steady_step_ms,epochs_run,seconds_run\n"


@pytest.mark.parametrize(
    ("name", "hint", "device"),
    [
        ("NVIDIA A100-SXM4-80GB (400W)", "", Device("A100", "sxm", 80, 400)),
        ("NVIDIA A100-PCIe-40GB (250W)", "gx_A100x4", Device("A100", "pcie", 40, 250)),
        ("A100-SXM4-80GB", "SD650-N_V2_A100_SXM_80GB_500W", Device("A100", "sxm", 80, 500)),
        ("NVIDIA A100-SXM4-40GB", "AS-2124GQ-NART_mxnet", Device("A100", "sxm", 40, 400)),
        ("NVIDIA A100-PCIE-80GB", "", Device("A100", "pcie", 80, 300)),
        ("NVIDIA A100", "nf5488", Device("A100")),
        ("BI-V100", "", Device("BI-V100")),
        ("Something New", "", Device("SOMETHING NEW")),
    ],
)
def test_a_device_by_its_name(name: str, hint: str, device: Device) -> None:
    assert describe_device(name, hint) == device


def test_the_published_rows_and_those_left_out() -> None:
    rows, left_out = read_rows()
    assert len(rows) == 42
    assert [one.name for one in left_out] == ["0.7 DellEMC 2xC4140", "0.7 DellEMC 4xC4140"]
    with PUBLISHED.open() as file:
        assert len(rows) + len(left_out) == len(list(csv.DictReader(file)))
    one = next(row for row in rows if row.system == "dgxa100_n8_ngc21.09_mxnet")
    assert (one.nodes, one.accelerators, one.local_batch, one.step_ms, one.epochs[0]) == (8, 64, 24, 19.955, 66)


def test_the_row_of_8_bi_v100() -> None:
    (row,), _ = read_rows(OTHERS)
    assert row.global_batch / row.step_ms * 1000 == pytest.approx(2858, abs=0.5)
    assert (row.accelerators, row.local_batch, row.seconds) == (8, 192, ())


@pytest.mark.parametrize(
    ("system", "nodes", "accelerators"),
    [("2xXE8545x4A100-SXM-80GB", 2, 8), ("gx_A100x4_mxnet", 1, 4), ("SR670v2_8xA100-PCIe", 1, 8), ("8xA100", 1, 8)],
)
def test_accelerators_from_a_systems_name(tmp_path, system: str, nodes: int, accelerators: int) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(HEAD + f"1.1,Acme,{system},NVIDIA A100-SXM4-80GB,,,512,50.0,,\n")
    (row,), left_out = read_rows(file)
    assert (row.nodes, row.accelerators, left_out) == (nodes, accelerators, [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1.1,Acme,a,NVIDIA A100,1,8,912,fast,,", "steady_step_ms is 'fast'"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,nan,,", "finite"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,-3,,", "above 0"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,1e300,,", "up to 1e+09"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,7_0,,", "steady_step_ms is '7_0'"),
        ("1.1,Acme,a,NVIDIA A100,1,8,1e30,70,,", "global_batch is 1e+30"),
        ("1.1,Acme,a,NVIDIA A100,1,8.5,912,70,,", "accelerators is 8.5"),
        ("1.1,Acme,a,NVIDIA A100,1,8,4,70,,", "each accelerator an image"),
        ("1.1,Acme,a,NVIDIA A100,9,8,912,70,,", "each node has an accelerator"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,70,51,0", "seconds_run is 0"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,70,-51,600", "epochs_run is -51"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,70,51.5,600", "epochs_run is 51.5"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,70,51 52,600", "epochs_run has 2 runs and seconds_run 1"),
        ("1.1,Acme,a,NVIDIA A100,1,8,912,70,51,600,7", "more cells"),
        ("1.1,Acme,a,NVIDIA A100,1,0,912,70,,", "accelerators is 0"),
        ("1.1,Acme,a,NVIDIA A100,1,8,,70,,", "global_batch"),
        ("1.1,Acme", "are empty"),
    ],
)
def test_what_is_no_row_is_named_with_its_line(tmp_path, line: str, said: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(HEAD + line + "\n")
    with pytest.raises(DataError, match="line 2") as error:
        read_rows(file)
    assert said in str(error.value)


def test_a_row_with_all_that_was_measured(tmp_path) -> None:
    """Numbers at their bounds: a node and an accelerator each have one of what they need, and a cell has the most."""
    file = tmp_path / "rows.csv"
    head = HEAD.replace("steady_step_ms", "steady_step_ms,start_s,first_epoch_excess_s")
    file.write_text(
        head + "1.1,Acme,box,NVIDIA A100,8,8,8,1e9,0.5,-0.25,50 51,600.5 612\n1.0,B,8xA100,A100,,,8,1,,,,\n"
    )
    (whole, bare), left_out = read_rows(file)
    assert left_out == []
    assert whole == Row("1.1", "Acme", "box", Device("A100"), 8, 8, 8, 1e9, 0.5, -0.25, (50, 51), (600.5, 612.0))
    assert (whole.name, whole.local_batch) == ("1.1 Acme box", 1.0)
    assert bare == Row("1.0", "B", "8xA100", Device("A100"), 1, 8, 8, 1.0, 0.0, 0.0, (), ())
    file.write_text(head + "1.1,Acme,box,NVIDIA A100,8,8,8,1,-0.5,,,\n")
    with pytest.raises(DataError, match=r"line 2: start_s is -0\.5; it must not be below 0$"):
        read_rows(file)
    file.write_text(head + "1.1,Acme,box,NVIDIA A100,,,8,1,,,,\n")
    rows, (left,) = read_rows(file)
    assert rows == []
    assert (left.name, left.why) == ("1.1 Acme box", "neither its row nor its name says how many accelerators it has")


def test_a_mark_of_byte_order_is_no_part_of_a_columns_name(tmp_path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(HEAD + "1.1,Acme,8xA100,NVIDIA A100,,,512,50.0,,\n", encoding="utf-8-sig")
    assert [row.accelerators for row in read_rows(file)[0]] == [8]


def test_a_file_that_is_no_table_of_rows(tmp_path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="lacks the column"):
        read_rows(file)
    file.write_text(HEAD.replace("nodes", "round") + "1.1,Acme,8xA100,NVIDIA A100,,,512,50.0,,\n")
    with pytest.raises(DataError, match=r"column\(s\) round twice"):
        read_rows(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError):
        read_rows(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")
