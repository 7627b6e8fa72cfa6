"""What every package that speaks the API shares: conversions between Python and protobuf's well-known types."""
