"""A simulator of the WeChat platform and of COS on loopback, for tests, practice and the demo."""

from typing import TYPE_CHECKING

from tcb_ops.hooks import Feature, SimulatorHooks, lazily
from tcb_ops.i18n import N_

if TYPE_CHECKING:
    from tcb_ops.features.simulator import sample as _sample
    from tcb_ops.features.simulator import server as _server
else:
    _sample, _server = lazily(__name__, "sample", "server")

FEATURE = Feature(
    settings={"simulator": "tcb_ops.features.simulator.settings:SimulatorSettings"},
    commands={
        "notebooks": {
            "tcb_ops.features.simulator.command:simulate": N_(
                "Serve a simulation of the platform and of COS."
            ),
            "tcb_ops.features.simulator.command:demo": N_("Run everything against the simulator."),
        },
    },
    hooks=[
        SimulatorHooks(
            analysis=_sample.analysis_settings,
            embedded=_server.embedded,
            is_practice=_sample.is_practice,
            is_sample=_sample.is_sample,
            practice=_sample.practice,
            write_practice=_sample.write_practice,
        )
    ],
)
