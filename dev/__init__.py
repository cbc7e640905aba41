"""What developers run on their machine: a real cluster and the demo. Nothing here is shipped."""
