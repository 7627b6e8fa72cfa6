"""``footlights firewall``: what it prints is what the launchers rely on."""

from __future__ import annotations

from typer.testing import CliRunner

from footlights.cli.app import app
from footlights.launch import firewall
from footlights.launch.firewall import FirewallSettings


def test_it_prints_the_rules_of_the_agents_settings() -> None:
    """It has the agent's options and variables; what is no network is refused by the option's name."""
    variables = {"FOOTLIGHTS_FIRST_PORT": "21000", "FOOTLIGHTS_DENIED_NETWORKS": "10.0.0.0/8 192.168.0.0/16"}

    done = CliRunner().invoke(app, ["firewall", "--last-port", "21999"], env=variables)
    wrong = CliRunner().invoke(app, ["firewall", "--allowed-networks", "here"])

    denied = ("10.0.0.0/8", "192.168.0.0/16")
    assert done.stdout == firewall.rules(FirewallSettings(first_port=21000, last_port=21999, denied_networks=denied))
    assert wrong.exit_code != 0
    assert "--allowed-networks: 'here' is not a network" in wrong.stderr
