"""What is trained on: groups of passages, their teacher scores, their neighbours."""
