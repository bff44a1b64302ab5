"""Worker processes get the toys by value: they cannot import from tests/."""

import cloudpickle

import toys

cloudpickle.register_pickle_by_value(toys)
