"""What an int8 file answers on CPUs with other instructions than this one's."""
