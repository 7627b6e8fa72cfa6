"""What every package that speaks the API shares: times and durations, and checks of HTTP header values."""
