"""Fresh processes in turns, and what their times come to: ratios with their doubt, the rows of a record."""
