"""Who is let into the cluster: invitations, certificates that metad signs, revocations."""
