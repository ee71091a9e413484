"""Runs about stored files, and what the store holds after them."""

import time

from workspace import QUICK, cancel, write_csv

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault


def other_list(workspace, env, path, file="0.bin"):
    """A list of its own, with one row."""
    source = write_csv(workspace.folder / "other.csv", ("env", "path", "file"), [(env, path, file)])
    return tcb.read_paths(source, workspace.merchants, workspace.folder / "files")


def upload_other(workspace, env, path, file="0.bin"):
    batch = other_list(workspace, env, path, file)
    return tcb.upload(batch, settings=workspace.settings, limits=QUICK)


def confirm(workspace, what="latest", **options):
    return tcb.confirm(what, settings=workspace.settings, limits=QUICK, **options)


def undo(workspace, what="latest", **options):
    return tcb.undo(what, settings=workspace.settings, limits=QUICK, **options)


def delete(workspace, what, **options):
    return tcb.delete(what, settings=workspace.settings, limits=QUICK, **options)


def interrupted(workspace, start, step):
    """Start a run, cancel it at its first call of a step; return its id."""
    workspace.sim.play([Fault(step=step, delay=60)])
    asked = sum(workspace.sim.stats.values())
    handle = start()
    while sum(workspace.sim.stats.values()) == asked:
        time.sleep(0.005)
    cancel(handle)
    workspace.sim.play([])
    return handle.id


def ends(run):
    return {(record.row.env, record.row.path): str(record.end.outcome) for record in run.rows()}


def stored(workspace):
    """What the merchants' environments hold, byte for byte."""
    env_of = {
        key: env
        for env in {m.env for m in workspace.merchants}
        for key in workspace.sim.objects
        if f"-{env}-" in key[0]
    }
    return {
        (env_of[at], at[1]): workspace.sim.content(env_of[at], at[1]) or b"" for at in workspace.sim.objects
    }
