"""Operations on tensors and segments that know nothing of data sets, models or files."""
