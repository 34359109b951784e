"""Help with misspelt names, in the two wordings of messages."""

from data.suggest import did_you_mean, nearest, suggest

KNOWN = ("steps", "seed", "weight_decay")


def test_the_nearest_name_or_none():
    assert nearest("step", KNOWN) == "steps"
    assert nearest("wombat", KNOWN) is None


def test_in_the_middle_of_a_message():
    assert did_you_mean("step", KNOWN) == " (did you mean 'steps'?)"
    assert did_you_mean("wombat", KNOWN) == ""


def test_at_the_end_of_a_message():
    assert suggest("step", KNOWN) == '; did you mean "steps"?'
    assert suggest("wombat", KNOWN) == "; known here: seed, steps, weight_decay"
