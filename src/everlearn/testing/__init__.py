"""Conformance suites: subclass one to check an implementation of your own."""
