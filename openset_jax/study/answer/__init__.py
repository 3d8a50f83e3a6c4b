"""The text of ANSWER.md."""
