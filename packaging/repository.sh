#!/bin/bash
# Makes repositories for apt and dnf of the packages in $PACKAGES, in the folder $REPOSITORY:
# plain files, for a web server or for a disk that is carried to machines without network.
# All is signed with the gpg key $SIGN_KEY. `make repository` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

[ -n "$SIGN_KEY" ] || { echo "make repository: SIGN_KEY must name the gpg key that signs" >&2 && exit 2; }
rm -rf "$REPOSITORY"
mkdir -p "$REPOSITORY/deb" "$REPOSITORY/rpm"
cp "$PACKAGES"/*.deb "$REPOSITORY/deb"
cp "$PACKAGES"/*.rpm "$REPOSITORY/rpm"
cd "$REPOSITORY"

sign() { gpg --batch --yes --local-user "$SIGN_KEY" "$@"; }
gpg --batch --armor --export "$SIGN_KEY" >cdigen.asc

cd deb
apt-ftparchive packages . >Packages
gzip -9nk Packages
apt-ftparchive -o APT::FTPArchive::Release::Origin=cdigen -o APT::FTPArchive::Release::Label=cdigen \
	-o APT::FTPArchive::Release::Description='NVIDIA GPUs in containers' release . >../Release
mv ../Release .
sign --clearsign --output InRelease Release
sign --armor --detach-sign --output Release.gpg Release

cd ../rpm
rpmsign --define "__gpg $(command -v gpg)" --define "_gpg_name $SIGN_KEY" --addsign -- *.rpm >/dev/null
createrepo_c --quiet .
sign --armor --detach-sign --output repodata/repomd.xml.asc repodata/repomd.xml
