"""The agent that decides how many workers and agents there are. It runs in a flow of its own (`flows.scaling`)."""

from signalbox.agents.contract import Singleton
from signalbox.agents.foundation_agent import FoundationAgent
from signalbox.skills.auto_scaling import AutoScalingSkill

AUTOSCALER_ID = "autoscaler"


class AutoscalerAgent(FoundationAgent):
    """Decides how many workers a flow and how many agents a pool has."""

    name = "autoscaler"
    addressing = Singleton(AUTOSCALER_ID)
    capabilities = ("scaling",)
    skills = (AutoScalingSkill(),)
