"""Results of studies: numbers, gates, recommendations, views."""
