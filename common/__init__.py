"""What the four backends share: spec, arithmetic, data and proof; no framework is imported here."""
