"""The bill by REPORT lines: as the local Lambda writes them, and as its command's log shows them."""

from __future__ import annotations

import pytest

from benchmarks.invoice import Report, billed, billed_without_init, reports
from local_lambda import report
from local_lambda.runtime_api import FunctionError

FIRST = report.Report("af50d0a3-0c4b-45da-9e4b-0a4f0a4d8f3e", 0.1001, 0.2505, 1024, 31, None)
LATER = report.Report("0d4bf1a5-8d2c-4d7e-a7c9-1b8c1a0f5c11", 0.0402, None, 1024, 33, None)
FAILED = report.Report("3c1c8c5a-5c0e-4c80-9a3a-8f3a7ad2f3f6", 0.0099, None, 1024, 33, FunctionError("E", "broke"))


@pytest.mark.parametrize("tab", ["\t", "  "], ids=["as Lambda writes it", "as the command shows it"])
def test_each_report_line_is_read_whole(tab: str) -> None:
    log = "".join(
        f"15:02:51.590 7390a01e {text}\n".replace("\t", tab)
        for text in ("START RequestId: af50", FIRST, "END RequestId: af50", LATER, FAILED)
    )
    assert reports(log) == [Report(100.1, 351, 250.5, 31), Report(40.2, 41, 0.0, 33), Report(9.9, 10, 0.0, 33)]


def test_init_is_billed_and_is_not_the_gateways_to_know() -> None:
    lines = reports(f"{FIRST}\n{LATER}\n")
    assert billed(lines) == 351 + 41
    assert billed_without_init(lines) == pytest.approx(100.5 + 41)
