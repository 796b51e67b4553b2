"""benchmark.sh --slurm on a Slurm of one node, started for these tests (Debian's packages slurm-wlm and munge)."""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from benchmark_helpers import CLIP, GATED, KLIP, Copy, wait_for
from helpers import environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
ABSENT = [program for program in PROGRAMS if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"without Slurm: {', '.join(ABSENT)} not found (slurm-wlm, munge)")

FOUR = ("--tasks", GATED, "--variants", "clip,klip", "--seeds", "0,1", "--script-args", "--gamma 0.98")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=3000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=2
SchedulerParameters=sched_interval=2
MaxArraySize=10
"""


@pytest.fixture(scope="module")
def cluster():
    """Starts munged, slurmctld and slurmd with all they keep in one folder; calls Slurm's commands."""
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # a socket's path must be short
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, user=user, ports=ports, folder=folder))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    variables = {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def call(*command):
        done = subprocess.run(
            command, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    call.variables = variables
    munge = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid"}
    munge |= {"log-file": "munged.log", "seed-file": "munged.seed"}
    try:
        call("munged", "--force", *(f"--{option}={folder / name}" for option, name in munge.items()))
        call("slurmctld", "-c")
        call("slurmd")
        wait_for(lambda: "idle" in call("sinfo", "--noheader"), timeout=30)
        yield call
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            if (folder / f"{name}.pid").exists():
                pid = int((folder / f"{name}.pid").read_text())
                os.kill(pid, signal.SIGTERM)
                wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), timeout=30)
        shutil.rmtree(folder)


@pytest.fixture
def slurm(cluster):
    """The same, with an empty queue after each test."""
    yield cluster
    cluster("scancel", "--user", getpass.getuser())
    wait_for(lambda: not cluster("squeue", "--noheader"))


def test_submit_cancel_requeue_resubmit(slurm, tmp_path):
    """While the gate is shut no task ends, however fast the machine is."""
    copy = Copy(tmp_path)
    copy.gate.touch()

    def sweep(*arguments):
        return copy.call(*FOUR, *arguments, **slurm.variables)

    def tasks(job):
        """Index -> state of the tasks of a job array that wait or run."""
        lines = slurm("squeue", "--noheader", "--array", "--jobs", job, "--format", "%K %T").splitlines()
        return dict(line.split() for line in lines)

    code, output = sweep("--slurm", "--workers", "1", "--", "--comment", "two words", "--time", "10")
    assert code == 0 and "submitted job array 1: 4 runs" in output, output
    watch = output.partition("squeue --job 1    ")[2].partition("    stop: scancel 1\n")[0]
    assert shlex.split(watch) == [str(copy.folder / "benchmark.sh"), *FOUR, "--workers", "1", "--status"]
    assert "clip,klip" in watch
    job = slurm("scontrol", "show", "job", "1")
    for setting in ("ArrayTaskThrottle=1", "Requeue=1", "TimeLimit=00:10:00", "MinMemoryNode=2G", "Comment=two words"):
        assert setting in job

    # The first is cancelled in its middle, the second preempted; nothing that is queued is submitted twice.
    wait_for(lambda: (copy.runs / CLIP).exists())
    assert tasks("1") == {"0": "RUNNING", "1": "PENDING", "2": "PENDING", "3": "PENDING"}
    code, output = sweep("--slurm")
    assert code == 0 and "nothing to submit" in output, output
    code, output = sweep("--status")
    assert code == 1 and "4 runs: 3 queued, 1 running" in output and f"running: {CLIP}" in output
    slurm("scancel", "1_0")
    wait_for(lambda: (copy.runs / KLIP).exists())
    slurm("scontrol", "requeue", "1_1")
    wait_for(lambda: tasks("1").get("1") == "PENDING")
    slurm("scontrol", "update", "job", "1_1", "StartTime=now")  # by itself, a requeued task waits two minutes
    assert (copy.runs / CLIP).exists() and not copy.results()

    # Only the cancelled one is missing.
    wait_for(lambda: "0" not in tasks("1"))
    code, output = sweep("--slurm")
    assert code == 0 and ": 1 runs" in output, output
    copy.gate.unlink()
    wait_for(lambda: len(copy.results()) == 4, timeout=240)
    assert sorted(path.name for path in (copy.runs / "incomplete").iterdir()) == [f"{CLIP}.1", f"{KLIP}.1"]
    wait_for(lambda: not slurm("squeue", "--noheader"))
    assert sum(copy.starts().values()) == 6

    times = copy.times()
    code, output = sweep("--status")
    assert code == 0 and "4 runs: 4 done" in output and "2 of 2 pairs identical" in output
    code, output = sweep("--slurm")
    assert code == 0 and "nothing to submit" in output
    assert copy.times() == times


def test_a_failed_task_fails_in_slurm_too(slurm, tmp_path):
    copy = Copy(tmp_path)
    copy.edit("\nCartPole-v1       cartpole    100000", "\nNoSuch-v4 cartpole 2048\nCartPole-v1 cartpole 100000")
    arguments = ("--tasks", "NoSuch-v4", "--variants", "clip", "--seeds", "0")
    code, output = copy.call(*arguments, "--slurm", **slurm.variables)
    assert code == 0, output
    job = output.partition("submitted job array ")[2].partition(":")[0]
    wait_for(lambda: "JobState=FAILED" in slurm("scontrol", "show", "job", job))
    slurm("sbatch", "--hold", "--job-name", "a job of another kind", "--output", "/dev/null", "--wrap", "true")
    code, output = copy.call(*arguments, "--status", **slurm.variables)
    assert code == 1 and "1 runs: 1 failed" in output and "error: --env-id NoSuch-v4" in output


def test_an_option_that_sbatch_refuses_leaves_nothing_behind(slurm, tmp_path):
    copy = Copy(tmp_path)
    code, output = copy.call(*FOUR, "--slurm", "--", "--partition", "nowhere", **slurm.variables)
    assert code == 2 and "nowhere" in output and "error: --slurm" in output
    assert not list(copy.runs.glob("slurm/*"))
    assert not slurm("squeue", "--noheader")


def test_more_runs_than_an_array_may_have_are_refused(slurm, tmp_path):
    copy = Copy(tmp_path)
    seeds = ",".join(map(str, range(11)))
    code, output = copy.call(*FOUR[:2], "--variants", "clip", "--seeds", seeds, "--slurm", **slurm.variables)
    assert code == 2 and "11 runs, but an array may have 10 here" in output, output
    assert not list(copy.runs.glob("slurm/*")) and not slurm("squeue", "--noheader")
