"""Apache Kafka's jars, fetched once per user through Maven into a cache directory.

Maven checks what it fetches and knows the site's mirrors and proxies; nothing else here touches the network. How the
jars are run is in `apache`.
"""

import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from signalbox.errors import ConfigError, Unreachable

KAFKA_VERSION = "4.3.1"
_LOG4J_VERSION = "2.25.1"
#: The log4j binding that fits the slf4j API which this Kafka brings.
_ARTIFACTS = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-core", _LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", _LOG4J_VERSION),
)
_COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_JAVA_MINIMUM = 17
#: 45 MB of jars and Maven's own plugins, on a slow line.
_FETCH_TIMEOUT_S = 600.0
_OTHER_BROKERS = "or use --broker embedded, or --broker HOST:PORT"

log = logging.getLogger(__name__)


def find_java() -> str:
    """The `java` of JAVA_HOME, else of PATH.

    Raises:
        ConfigError: there is none, or it is too old for Kafka.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    hint = f"install a Java {_JAVA_MINIMUM} (or later) runtime, {_OTHER_BROKERS}"
    if java is None:
        msg = f"Apache Kafka needs Java, and there is none {f'in JAVA_HOME={home}' if home else 'on PATH'}"
        raise ConfigError(msg, hint=hint)
    output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    version = re.search(r'version "(\d+)', output)
    if version is None or int(version[1]) < _JAVA_MINIMUM:
        found = version[1] if version else output.strip() or "unknown"
        msg = f"Apache Kafka {KAFKA_VERSION} needs Java {_JAVA_MINIMUM} or later; {java} is version {found}"
        raise ConfigError(msg, hint=hint)
    return java


def kafka_jars() -> Path:
    """The directory of jars, fetched first if this user has none yet.

    Two starters may do so at once: each fetches into a directory of its own, and the first to finish wins.

    Raises:
        ConfigError: they have to be fetched and there is no Maven.
        Unreachable: Maven could not fetch them.
    """
    jars = cached_jars()
    if not jars.is_dir():
        maven = shutil.which("mvn")
        if maven is None:
            msg = f"Apache Kafka {KAFKA_VERSION} is fetched with Maven, and there is no mvn on PATH"
            raise ConfigError(msg, hint=f"install Maven, {_OTHER_BROKERS}")
        jars.parent.mkdir(parents=True, exist_ok=True)
        log.info("fetching Apache Kafka %s into %s", KAFKA_VERSION, jars)
        with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".fetch-") as directory:
            _put_in_place(_fetch(maven, Path(directory)), jars)
    return jars


def cached_jars() -> Path:
    """Where the jars are once they are fetched."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "signalbox" / f"kafka-{KAFKA_VERSION}"


def _fetch(maven: str, directory: Path) -> Path:
    pom, jars = directory / "pom.xml", directory / "jars"
    pom.write_text(_pom())
    command = [maven, "-q", "-B", "-f", str(pom), _COPY_GOAL, "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        msg = f"Maven did not fetch Apache Kafka {KAFKA_VERSION} within {_FETCH_TIMEOUT_S:g} s"
        raise Unreachable(msg, hint=f"try again, {_OTHER_BROKERS}") from None
    if result.returncode:
        msg = f"Maven could not fetch Apache Kafka {KAFKA_VERSION}:\n{(result.stdout + result.stderr)[-2000:]}"
        raise Unreachable(msg, hint=f"check the network and Maven's settings.xml, {_OTHER_BROKERS}")
    return jars


def _put_in_place(fetched: Path, jars: Path) -> None:
    try:
        fetched.rename(jars)
    except OSError:
        if not jars.is_dir():  # else another starter was quicker, and its jars are the same
            raise


def _pom() -> str:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in _ARTIFACTS
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>signalbox</groupId><artifactId>local-kafka</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )
