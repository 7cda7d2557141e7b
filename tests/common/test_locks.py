"""Locks between processes."""

import multiprocessing
import time

import pytest

from mmprompt.common.locks import process_lock


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path))


def is_free(name):
    with process_lock(name, wait=False) as held:
        return held


def hold(name, ready):
    with process_lock(name):
        ready.set()
        time.sleep(60)


def test_a_held_lock_is_told_and_another_name_is_free():
    with process_lock('one') as held:
        assert held
        assert not is_free('one') and is_free('two')
    assert is_free('one')


def test_a_lock_ends_with_the_process_that_held_it():
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    child = context.Process(target=hold, args=('one', ready), daemon=True)
    child.start()
    assert ready.wait(30) and not is_free('one')
    child.kill()
    child.join()
    with process_lock('one') as held:  # waits, if need be
        assert held


def test_a_worker_started_meanwhile_does_not_keep_the_lock():
    context = multiprocessing.get_context('fork')
    with process_lock('one'):
        worker = context.Process(target=time.sleep, args=(60,), daemon=True)
        worker.start()
    assert is_free('one')
    worker.kill()
    worker.join()
