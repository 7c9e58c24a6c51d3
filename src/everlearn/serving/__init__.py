"""Answers over HTTP, logged before they are given; labels that come back; learning beside them."""
