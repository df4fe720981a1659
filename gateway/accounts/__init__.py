"""What customers have used and may still use: rates, tokens, requests at once, money; shared in the background."""
