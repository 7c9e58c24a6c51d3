"""Who gets a candidate: shadow, canary and A/B, with statistics that may be looked at any time."""
