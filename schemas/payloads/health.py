"""What sensors measure about machines and about this system's own processes."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from schemas.payloads.base import Name, Payload, Ratio, Timestamp


class SystemHealth(Payload):
    """One reading of a machine's health. The signal's subject names the machine, its type the level."""

    memory_usage: Ratio = Field(description="Memory in use, as a ratio of what may be used (0 to 1).")
    cpu_usage: Ratio = Field(description="CPU time in use since the last reading, as a ratio of all usable (0 to 1).")
    disk_usage: Ratio = Field(description="Space in use on the watched file system, as a ratio (0 to 1).")
    process_count: NonNegativeInt = Field(description="Number of processes that can be seen.")
    timestamp: Timestamp = Field(description="When it was measured, with a zone.")
    level: Literal["normal", "warning", "critical"] | None = Field(
        None, description="How the sensor judged the reading by its thresholds; the same word ends the signal's type."
    )
    memory_scope: Literal["host", "cgroup"] | None = Field(
        None, description="Whether memory is tightest on the host as a whole or in the control group's limit."
    )
    cpu_scope: Literal["host", "cgroup"] | None = Field(
        None, description="Whether CPU time is tightest on the host as a whole or in the control group's limit."
    )


class ResourceUsage(Payload):
    """What one process of this system uses. The signal's subject names the node."""

    name: Name = Field(description="The process's role, such as `supervisor`, `sensors` or `agents-0`.")
    pid: PositiveInt = Field(description="Process id on its host.")
    rss_bytes: NonNegativeInt = Field(description="Resident memory, in bytes.")
    cpu_ratio: NonNegativeFloat = Field(
        description="CPU time used since the last reading, in cores: 1 is one busy core."
    )
    open_fds: NonNegativeInt | None = Field(None, description="Open file descriptors; null where not readable.")
    threads: PositiveInt = Field(description="Number of threads.")
    timestamp: Timestamp = Field(description="When it was measured, with a zone.")


class ResourceLevel(Payload):
    """How much of one resource is in use."""

    resource: Name = Field(description="`memory`, `registry`, or `pool.` and the name of a pool of tokens.")
    ratio: NonNegativeFloat = Field(description="What is in use, as a ratio of what there is; memory may exceed 1.")
    level: Literal["normal", "warning", "critical"] = Field(
        description="`warning` from `resources.alert_threshold` on; `critical` where requests are refused or wait."
    )


class ResourceMetrics(Payload):
    """What is in use of the resources that are shared out. The signal's subject is `node/process`."""

    levels: tuple[ResourceLevel, ...] = Field(max_length=1_000, description="One for each resource.")
    alert_threshold: Ratio = Field(description="The ratio from which on a resource is worth a warning.")
    timestamp: Timestamp = Field(description="When it was measured, with a zone.")
