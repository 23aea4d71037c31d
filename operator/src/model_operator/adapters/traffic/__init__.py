"""Ways to move traffic between revisions."""
