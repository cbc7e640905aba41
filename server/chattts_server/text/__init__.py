"""Text for reading aloud: pure functions, linear in the text's length."""
