"""Bars: shown where they are asked for, and no lock between processes."""

import os
import subprocess
import sys

import pytest

from tezip_h5.progress import progress_bar

KILLED = """
import os, signal, numpy as np, tezip_h5
from tqdm import tqdm
from tezip_h5.progress import Bar

tezip_h5.write(np.zeros((2, 16, 16), np.uint8), "a.h5", threads=1)
for lock in (Bar.get_lock(), tqdm.get_lock()):
    child = os.fork()
    if child == 0:
        lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    tezip_h5.verify("a.h5")
"""
FORKED = """
import os, threading
from tezip_h5.progress import Bar, progress_bar

with Bar.get_lock():  # as another thread may hold it
    child = os.fork()
    if child == 0:
        thread = threading.Thread(target=progress_bar, args=([],))
        thread.start()
        thread.join(20)
        os._exit(thread.is_alive())
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize("script", [KILLED, FORKED], ids=["killed", "forked"])
def test_a_process_does_not_wait_for_a_lock_of_another(script, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("show", "shown"), [(True, True), (False, False), (None, False)])
def test_where_no_terminal_is_a_bar_is_shown_when_it_is_asked_for(show, shown, capsys):
    assert list(progress_bar(range(3), show=show, delay=0, leave=True)) == [0, 1, 2]
    assert ("3/3" in capsys.readouterr().err) == shown
