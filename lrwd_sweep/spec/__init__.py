"""What is asked of a study, validated: no torch."""
