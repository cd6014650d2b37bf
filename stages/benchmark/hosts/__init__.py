"""Where the processes of a runtime run: here, here within limits, or on a device over SSH; a file each."""
