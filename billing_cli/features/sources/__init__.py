"""`billing sources`: what belongs to a source goes on under another name."""
