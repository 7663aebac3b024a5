"""Our small reader of WFDB records and the `wfdb` library: the same numbers, both ways, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.ecg.files import read_ecg, write_ecg
from tests.device.leads import beating

pytestmark = pytest.mark.train


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "508", "516", "524"])
def test_what_wfdb_writes_we_read_and_the_other_way_round(tmp_path: Path, fmt: str) -> None:
    import wfdb

    x, _ = beating(4.0)
    leads = np.stack([x, 0.5 - x], axis=1).astype(np.float64)
    leads[100:120, 1] = np.nan
    wfdb.wrsamp(
        "ours",
        360,
        ["mV", "mV"],
        ["I", "II"],
        leads,
        fmt=[fmt] * 2,
        write_dir=str(tmp_path),
        comments=["40 F"],
    )
    theirs = wfdb.rdrecord(str(tmp_path / "ours"))
    ecg = read_ecg(tmp_path / "ours")
    assert (ecg.rate_hz, ecg.samples) == (360, len(x)) and [lead.name for lead in ecg.leads] == ["I", "II"]
    for n, lead in enumerate(ecg.leads):
        known = ~np.isnan(theirs.p_signal[:, n])
        np.testing.assert_allclose(lead.samples[known], theirs.p_signal[known, n], atol=1e-6)
    assert ecg.leads[1].gaps == [(100, 120)]
    write_ecg(tmp_path / "back", [lead.samples for lead in ecg.leads], ecg)
    again = wfdb.rdrecord(str(tmp_path / "back"))
    np.testing.assert_allclose(again.p_signal, theirs.p_signal, atol=1e-6, equal_nan=True)
    assert again.comments == theirs.comments and again.sig_name == theirs.sig_name
