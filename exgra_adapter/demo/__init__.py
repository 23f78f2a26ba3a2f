"""A complete run of the method on synthetic pictures, from drawing them to the report."""
