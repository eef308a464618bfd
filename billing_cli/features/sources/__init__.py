"""`billing sources`: lists sources; what belongs to one goes on under another name."""
