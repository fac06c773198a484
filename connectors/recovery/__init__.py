"""Keeps a flow's recovery directory sound: copies, checks, and the way back to a copy.

    <directory>/engine/         the engine's store: positions, and which pieces of state count
    <directory>/segments/       the pieces (`connectors.segments`)
    <directory>/origins.json    where input and output began, and its twin origins.backup.json;
                                pools.json and its twin: the sizes that pools began with
    <directory>/sealed.json     checksums of what was at rest when the last worker ended
    <directory>/checked.json    what a start has checked last, so that its other processes need not
    <directory>/copies/         the newest sound copies
    <directory>/damaged-*/      what was found damaged and replaced

`store.RecoveryStore` is the door. Going back to a copy needs Kafka to retain the input and the output since then.
"""
