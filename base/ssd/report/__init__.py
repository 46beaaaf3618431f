"""What a run tells people: its summary, and pictures of what the model sees."""
