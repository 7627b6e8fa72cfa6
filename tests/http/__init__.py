# noqa: A005  tests mirror the packages
