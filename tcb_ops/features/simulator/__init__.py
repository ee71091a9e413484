"""A simulator of the WeChat platform and of COS on loopback, for tests, practice and the demo."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    settings={"simulator": "tcb_ops.features.simulator.settings:SimulatorSettings"},
    commands={
        "notebooks": [
            "tcb_ops.features.simulator.command:simulate",
            "tcb_ops.features.simulator.command:demo",
        ]
    },
    provides={
        "analysis": "tcb_ops.features.simulator.sample:analysis_settings",
        "practice": "tcb_ops.features.simulator.sample:practice",
        "init --practice": "tcb_ops.features.simulator.sample:write_practice",
        "simulator": "tcb_ops.features.simulator.server:embedded",
    },
)
