"""What an installation on a cluster needs of deerfield itself: its Secrets, and a trial of it."""
