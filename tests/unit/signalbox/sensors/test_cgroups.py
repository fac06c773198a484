"""Control groups as kernels and container runtimes present them, in fake file trees."""

import pytest

from signalbox.sensors.cgroups import ControlGroups, MemoryGroup
from tests.unit.signalbox.sensors.machines import UNLIMITED, version_1, version_2, write

STAT = "anon 300\ninactive_file 200\nactive_file 50"


def memory(root):
    return ControlGroups(root).memory()


def cpu(root):
    return [(group.used_s, group.cores) for group in ControlGroups(root).cpu()]


def test_a_container_of_version_2_sees_its_own_limits_at_the_mount_point(tmp_path):
    """With a cgroup namespace the group is `/`, and its files lie at the top."""
    root = version_2(
        tmp_path,
        "/",
        {
            "memory.max": 1000,
            "memory.current": 700,
            "memory.stat": STAT,
            "cpu.max": "150000 100000",
            "cpu.stat": "usage_usec 2500000\nuser_usec 1",
        },
    )
    assert memory(root) == [MemoryGroup(used_bytes=500, limit_bytes=1000)], "droppable cache is not use"
    assert cpu(root) == [(2.5, 1.5)]


def test_a_limit_of_an_ancestor_counts_as_well(tmp_path):
    """A process is as limited as the tightest of its groups, so all levels are reported, its own first."""
    root = version_2(
        tmp_path,
        "/pod/box",
        {
            "pod/box/memory.max": "max",
            "pod/box/memory.current": 10,
            "pod/box/memory.stat": STAT,
            "pod/memory.max": 4000,
            "pod/memory.current": 3200,
            "pod/memory.stat": STAT,
            "pod/box/cpu.max": "50000 100000",
            "pod/box/cpu.stat": "usage_usec 1000000",
            "pod/cpu.max": "200000 100000",
            "pod/cpu.stat": "usage_usec 9000000",
        },
    )
    assert memory(root) == [MemoryGroup(used_bytes=3000, limit_bytes=4000)]
    assert cpu(root) == [(1.0, 0.5), (9.0, 2.0)]


def test_a_bare_host_of_version_2_has_no_limits(tmp_path):
    """The root group has no limit files at all."""
    root = version_2(tmp_path, "/", {"cpu.stat": "usage_usec 1", "memory.stat": STAT})
    assert (memory(root), cpu(root)) == ([], [])


def test_version_1_without_limits_has_none(tmp_path):
    """The huge number and -1 both mean unlimited."""
    root = version_1(
        tmp_path,
        {"memory": "/", "cpu,cpuacct": "/"},
        {
            "memory/memory.limit_in_bytes": UNLIMITED,
            "memory/memory.usage_in_bytes": 5,
            "memory/memory.stat": "",
            "cpu,cpuacct/cpu.cfs_quota_us": -1,
            "cpu,cpuacct/cpu.cfs_period_us": 100000,
            "cpu,cpuacct/cpuacct.usage": 7,
        },
    )
    assert (memory(root), cpu(root)) == ([], [])


def test_version_1_reads_limits_of_the_processs_own_group(tmp_path):
    """Memory comes with the cache of the whole subtree taken off, CPU time in nanoseconds."""
    root = version_1(
        tmp_path,
        {"memory": "/docker/abc", "cpu,cpuacct": "/docker/abc"},
        {
            "memory/docker/abc/memory.limit_in_bytes": 1000,
            "memory/docker/abc/memory.usage_in_bytes": 900,
            "memory/docker/abc/memory.stat": "inactive_file 1\ntotal_inactive_file 300",
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": 200000,
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": 100000,
            "cpu,cpuacct/docker/abc/cpuacct.usage": 3_000_000_000,
        },
    )
    assert memory(root) == [MemoryGroup(used_bytes=600, limit_bytes=1000)]
    assert cpu(root) == [(3.0, 2.0)]


def test_version_1_with_separate_accounting_reads_the_same_group_there(tmp_path):
    """`cpu` and `cpuacct` may be mounted apart."""
    root = version_1(
        tmp_path,
        {"cpu": "/box", "cpuacct": "/box"},
        {
            "cpu/box/cpu.cfs_quota_us": 100000,
            "cpu/box/cpu.cfs_period_us": 100000,
            "cpuacct/box/cpuacct.usage": 4_000_000_000,
        },
    )
    assert cpu(root) == [(4.0, 1.0)]


@pytest.mark.parametrize(
    ("group", "top"), [("/docker/abc", "/docker/abc"), ("/somewhere/else", "/docker/abc"), ("/../../outside", "/")]
)
def test_a_mount_that_shows_only_a_part_of_the_tree_is_read_from_its_top(tmp_path, group, top):
    """Without a cgroup namespace the mount's top is the container's own group, whatever the path says."""
    root = version_1(
        tmp_path,
        {"memory": group},
        {"memory/memory.limit_in_bytes": 1000, "memory/memory.usage_in_bytes": 250, "memory/memory.stat": ""},
        top=top,
    )
    assert memory(root) == [MemoryGroup(used_bytes=250, limit_bytes=1000)]


def test_a_machine_without_control_groups_has_no_limits(tmp_path):
    """Other systems, and a `/proc` that is not mounted, are no error."""
    assert (memory(tmp_path), cpu(tmp_path)) == ([], [])


@pytest.mark.parametrize(
    "odd",
    [
        {"sys/fs/cgroup/memory.max": "soon", "sys/fs/cgroup/cpu.max": "1"},
        {"sys/fs/cgroup/memory.max": 0, "sys/fs/cgroup/cpu.max": "0 0"},
        {"sys/fs/cgroup/memory.current": "", "sys/fs/cgroup/cpu.stat": "usage_usec many"},
        {"sys/fs/cgroup/memory.max": "", "sys/fs/cgroup/cpu.max": "\n\n"},
        {"proc/self/cgroup": "gibberish\n::::\n0", "sys/fs/cgroup/x": ""},
        {"proc/self/mountinfo": "gibberish - cgroup2\n - \n1 2 3 - cgroup2 a b"},
    ],
)
def test_files_that_make_no_sense_are_no_limits(tmp_path, odd):
    """A kernel that says something new costs a limit, never the sensor."""
    files = {"memory.max": 10, "memory.current": 5, "memory.stat": "", "cpu.max": "1 1", "cpu.stat": "usage_usec 1"}
    root = write(version_2(tmp_path, "/", files), odd)
    assert (memory(root), cpu(root)) == ([], [])


def test_use_is_never_negative(tmp_path):
    """Counters are read one after the other, and the cache can have grown in between."""
    files = {"memory.max": 10, "memory.current": 5, "memory.stat": "inactive_file 7"}
    assert memory(version_2(tmp_path, "/", files)) == [MemoryGroup(used_bytes=0, limit_bytes=10)]
