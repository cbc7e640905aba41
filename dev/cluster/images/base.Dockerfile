# Stands for python:3.11-slim-bookworm where no registry is used: Debian's own packages by debootstrap.
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
