"""Where everything is kept: the database, blobs, and the parts of states as blobs."""
